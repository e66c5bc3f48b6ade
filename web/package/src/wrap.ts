/** Wraps methods of the browser's classes. Only for workers, which have their own. */

type Method<T, K extends keyof T> = T[K] extends (...args: infer A) => infer R ? (...args: A) => R : never;

/** Replaces a method. The new one gets the old one, bound, and the same `this`. */
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
