/** Errors as the page tells them: one sentence on what is wrong, one on what to do. */

export interface Explained {
  code: string;
  wrong: string;
  advice: string;
}

/** Something the page itself refuses. The message holds both sentences. */
export class PageError extends Error {
  constructor(
    readonly code: string,
    wrong: string,
    advice: string,
  ) {
    super(`${wrong} ${advice}`);
    this.name = "PageError";
  }
}

export const isAbort = (error: unknown): boolean => error instanceof Error && error.name === "AbortError";

/** Splits an error's message into what is wrong and what to do. Errors of the package carry a `code` and both sentences; others get general advice. */
export function explain(error: unknown): Explained {
  const code = (error as { code?: unknown } | null)?.code;
  const message = error instanceof Error ? error.message.trim() : String(error);
  const known = typeof code === "string";
  const [, first, rest] = /^(.+?[.!?])\s+(?=[A-Z"“'])([^]+)$/.exec(message) ?? [, message, ""];
  const wrong = known ? (first ?? message) : `Something unexpected went wrong: ${first ?? message}`;
  return {
    code: known ? code : "unexpected",
    wrong: /[.!?]$/.test(wrong) ? wrong : `${wrong}.`,
    advice: rest || "Try again; if it happens again, reload the page.",
  };
}

/** Both sentences in one line. */
export function told(error: unknown): string {
  const { wrong, advice } = explain(error);
  return `${wrong} ${advice}`;
}
