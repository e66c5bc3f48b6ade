/** Errors as the page shows them: one sentence on the problem, one on the remedy. */

export interface Explained {
  code: string;
  wrong: string;
  advice: string;
}

/** An error of the page itself. The message holds both sentences. */
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

/** Splits an error's message into problem and remedy. Errors of the package have a `code` and both sentences; others get a
 * generic remedy. */
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
