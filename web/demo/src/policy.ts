/* Runs before anything else, as a classic script. The policy in index.html lets the page read packs from any host, because which one is the visitor's
 * choice. This narrows it to the hosts that this address really names: the page's own and that of `?model=`. Policies only ever add up, so nothing that
 * runs later can widen it again, and another model means another address. */
{
  const allowed = ["'self'"];
  const model = new URLSearchParams(location.search).get("model");
  try {
    const { origin, protocol } = new URL(model ?? "", location.href);
    if (/^https?:$/.test(protocol) && origin !== location.origin) allowed.push(origin);
  } catch {
    // No address: the page says so when it looks for the model.
  }
  const meta = document.createElement("meta");
  meta.httpEquiv = "Content-Security-Policy";
  meta.content = `connect-src ${allowed.join(" ")}`;
  document.head.append(meta);
}
