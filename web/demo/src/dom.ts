/** DOM helpers. Text is always set as text, never as markup. */

type Child = Node | string | null | undefined | false;
type Attributes = Record<string, unknown>;

/** The element of index.html with this id. */
export function $<T extends HTMLElement = HTMLElement>(id: string): T {
  const found = document.getElementById(id);
  if (!found) throw new Error(`index.html lacks the element #${id}`);
  return found as T;
}

/** Sets the text of an element of index.html. */
export function say(id: string, text: string): void {
  $(id).textContent = text;
}

/** Shows or hides an element of index.html. */
export function show(id: string, visible: boolean): void {
  $(id).hidden = !visible;
}

/** Creates an element. Functions become listeners, booleans are set or omitted, the rest become attributes. */
export function h<K extends keyof HTMLElementTagNameMap>(tag: K, attributes: Attributes = {}, ...children: Child[]): HTMLElementTagNameMap[K] {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") element.addEventListener(name, value as EventListener);
    else if (value === true) element.setAttribute(name, "");
    else if (value !== false && value !== null && value !== undefined) element.setAttribute(name, String(value));
  }
  for (const child of children) if (child) element.append(child);
  return element;
}

/** An icon from the page's sprite. It is decorative, so hidden from assistive technology. */
export function icon(name: string): SVGSVGElement {
  const svg = document.createElementNS("http://www.w3.org/2000/svg", "svg");
  svg.setAttribute("class", "icon");
  svg.setAttribute("aria-hidden", "true");
  const use = document.createElementNS("http://www.w3.org/2000/svg", "use");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

/** A button with an icon; its label is the accessible name and the tooltip. */
export function iconButton(name: string, label: string, click: () => void): HTMLButtonElement {
  return h("button", { type: "button", class: "icon-button", "aria-label": label, title: label, click }, icon(name));
}

/** A button with an icon and text. */
export function button(name: string | null, label: string, click: () => void, kind = "ghost"): HTMLButtonElement {
  return h("button", { type: "button", class: `button ${kind}`, click }, name && icon(name), h("span", {}, label));
}

/** A row of a description list. */
export const row = (term: string, ...value: Child[]): HTMLElement => h("div", {}, h("dt", {}, term), h("dd", {}, ...value));

/** A picture. Small ones keep their pixels when enlarged, large ones are smoothed. */
export const picture = (url: string, alt: string, width: number): HTMLImageElement => h("img", { src: url, alt, class: rendering(width) });

/** The CSS class of a picture or canvas of this width in pixels. */
export const rendering = (width: number): string => (width <= 128 ? "pixelated" : "smooth");
