/* Runs first, as a classic script. The policy in index.html allows packs from any host, because the visitor chooses which. This
 * narrows it to the hosts that the URL names: the page's own and that of `?model=`. Policies only ever add restrictions, so no
 * later script can widen it again, and another model needs another URL. */
{
  const allowed = ["'self'"];
  const model = new URLSearchParams(location.search).get("model");
  try {
    const { origin, protocol } = new URL(model ?? "", location.href);
    if (/^https?:$/.test(protocol) && origin !== location.origin) allowed.push(origin);
  } catch {
    // Not a URL: the page reports it when it looks for the model.
  }
  const meta = document.createElement("meta");
  meta.httpEquiv = "Content-Security-Policy";
  meta.content = `connect-src ${allowed.join(" ")}`;
  document.head.append(meta);
}
