/** The models that come with the page, and the one that its address asks for. */

/** The package of each. It is asked for only where its model is used, and checks that it goes with emu-webgpu. */
const PACKAGES = { smol: () => import("emu-webgpu-smol"), mini: () => import("emu-webgpu-mini") };

type Bundled = keyof typeof PACKAGES;

const root = document.documentElement;
const isBundled = (name: string): name is Bundled => Object.hasOwn(PACKAGES, name);
/** Those that are there. The page opens with the first. The build marks a page that was put together without emu-smol. */
const there = (root.dataset["models"] ?? "smol mini").split(" ").filter(isBundled);

/** What `?model=` says. */
export const named = new URLSearchParams(location.search).get("model") || there[0] || "";
/** The bundled model in use; null where the address names another pack. */
export const bundled = isBundled(named) ? (there.find((name) => name === named) ?? there[0] ?? null) : null;

// What the page says of one model only is hidden elsewhere by the style sheet.
root.dataset["model"] = bundled ?? "other";

/** The address of the pack. */
export const locate = async (): Promise<string> => (bundled ? (await PACKAGES[bundled]()).url : named);

/** The address of the page with a model: a bundled one's name, or a pack's address. */
export function pageWith(model: string): string {
  const page = new URL(location.href);
  if (model === there[0]) page.searchParams.delete("model");
  else page.searchParams.set("model", model);
  return page.href;
}
