/** The bundled models, and the model that the URL asks for. */

/** The package of each model. It is imported only if its model is used, and checks its version against emu-webgpu. */
const PACKAGES = { smol: () => import("emu-webgpu-smol"), mini: () => import("emu-webgpu-mini") };

type Bundled = keyof typeof PACKAGES;

const root = document.documentElement;
const isBundled = (name: string): name is Bundled => Object.hasOwn(PACKAGES, name);
/** The available ones; the page opens with the first. The build marks a page that it assembled without emu-smol. */
const there = (root.dataset["models"] ?? "smol mini").split(" ").filter(isBundled);

/** The value of `?model=`. */
export const named = new URLSearchParams(location.search).get("model") || there[0] || "";
/** The bundled model in use; null if the URL names another pack. */
export const bundled = isBundled(named) ? (there.find((name) => name === named) ?? there[0] ?? null) : null;

// The style sheet hides text that is about another model.
root.dataset["model"] = bundled ?? "other";

/** The URL of the pack. */
export const locate = async (): Promise<string> => (bundled ? (await PACKAGES[bundled]()).url : named);

/** The URL of the page with a model: the name of a bundled one, or a pack's URL. */
export function pageWith(model: string): string {
  const page = new URL(location.href);
  if (model === there[0]) page.searchParams.delete("model");
  else page.searchParams.set("model", model);
  return page.href;
}
