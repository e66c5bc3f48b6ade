/**
 * A TypeDoc plugin. A module is named as it is imported, a guide after its first heading. Code without a language is not
 * coloured as TypeScript. Links to the first page name its file, because a browser that reads files has no page for a folder.
 */

import { Converter, PageEvent, ReflectionKind } from "typedoc";

const PACKAGE = "emu-webgpu";

/** The first heading of a Markdown text. `content` is TypeDoc's list of text, code and links. */
function heading(content) {
  const text = content.map((part) => part.text).join("");
  return /^# (.+)$/m.exec(text)?.[1].replaceAll("`", "");
}

/** Names the language of code that has none. */
function plain(content) {
  for (const part of content) if (part.kind === "code") part.text = part.text.replace(/^```\r?\n/, "```text\n");
}

/** @param {import("typedoc").Application} app */
export function load(app) {
  app.converter.on(Converter.EVENT_RESOLVE_BEGIN, ({ project }) => {
    for (const module of project.getChildrenByKind(ReflectionKind.Module))
      module.name = module.name === "index" ? PACKAGE : `${PACKAGE}/${module.name}`;
    if (project.readme) plain(project.readme);
    for (const document of project.documents ?? []) {
      plain(document.content);
      const title = heading(document.content);
      if (title) document.name = title;
      else app.logger.error(`${document.name} has no heading of the first level, which would be its title`);
    }
  });
  app.renderer.on(PageEvent.END, (page) => {
    page.contents = page.contents?.replace(/href="((?:\.\.?\/)+)"/g, 'href="$1index.html"');
  });
}
