/** Replacing methods of the browser's classes, which a worker may do: they are its own. */

type Method<T, K extends keyof T> = T[K] extends (...args: infer A) => infer R ? (...args: A) => R : never;

/** Replaces a method by one that is given the old one, bound, and the same `this`. */
export function wrap<T extends object, K extends keyof T>(
  prototype: T,
  name: K,
  around: (this: T, old: Method<T, K>, ...args: Parameters<Method<T, K>>) => ReturnType<Method<T, K>>,
): void {
  const old = prototype[name] as Method<T, K>;
  prototype[name] = function (this: T, ...args: Parameters<Method<T, K>>) {
    return around.call(this, old.bind(this) as Method<T, K>, ...args);
  } as T[K];
}
