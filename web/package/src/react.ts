"use client";
/** A React hook that loads a model and disposes of it with its component. */

import { useCallback, useEffect, useRef, useState } from "react";

import { abortError, isAbort } from "./errors.js";
import { follow } from "./follow.js";
import { Emu, EmuError } from "./index.js";
import type { Session } from "./session.js";
import type { ChatEvent, ChatOptions, LoadOptions, Message, PackLocation, Progress } from "./types.js";

/** Options of {@link useEmu}: those of `Emu.load`, except for its signal. */
export interface UseEmuOptions<Model extends Session = Emu> extends Omit<LoadOptions, "signal"> {
  /** Replaces `Emu.load`, for tests. The hook disposes of the model that it returns. */
  load?: (pack: PackLocation, options: LoadOptions) => Promise<Model>;
}

/** What {@link useEmu} returns. */
export interface UseEmu<Model extends Session = Emu> {
  /** The loaded model; `null` while it loads, after an error, and on a server. */
  emu: Model | null;
  /** Whether the model is loaded. */
  ready: boolean;
  /** The latest progress of the load; `null` before the first one. */
  progress: Progress | null;
  /** Why the load failed. */
  error: Error | null;
  /**
   * Answers a conversation, as `emu.chat`. The loop ends with an `AbortError` when the component unmounts or the model is
   * replaced. The function stays the same from render to render.
   */
  chat(messages: readonly Message[], options?: ChatOptions): AsyncGenerator<ChatEvent, void, undefined>;
  /** Loads again: after an error, or to replace the model. */
  reload(): void;
}

interface State<Model> {
  emu: Model | null;
  progress: Progress | null;
  error: Error | null;
}

const NOTHING = { emu: null, progress: null, error: null };

/**
 * Loads a pack while the component is mounted. `null` loads nothing yet. Another pack, device, list of components or cache replaces
 * the model; other options are those of the render in which a load started, and `onProgress` that of the last render.
 */
export function useEmu<Model extends Session = Emu>(pack: PackLocation | null, options: UseEmuOptions<Model> = {}): UseEmu<Model> {
  const [state, setState] = useState<State<Model>>(NOTHING);
  const [attempt, setAttempt] = useState(0);
  const latest = useRef({ pack, options });
  /** The loaded model, and the signal of its end. */
  const current = useRef<{ emu: Model; signal: AbortSignal } | null>(null);
  useEffect(() => {
    latest.current = { pack, options };
  });

  const { device, components, cache } = options;
  // Packs are told apart by their address, since most callers make a new object in each render.
  const address = pack === null ? null : typeof pack === "string" || pack instanceof URL ? String(pack) : pack.url;
  const wanted = address === null ? null : JSON.stringify([address, device, components, cache, attempt]);

  useEffect(() => {
    if (wanted === null) return;
    const stop = new AbortController();
    const { signal } = stop;
    const begin = async () => {
      // The strict mode mounts twice in one go: the first of the two loads never starts.
      await null;
      if (signal.aborted) return;
      const { pack, options } = latest.current;
      const { load = Emu.load as unknown as NonNullable<UseEmuOptions<Model>["load"]>, ...rest } = options;
      const onProgress = (progress: Progress) => {
        if (signal.aborted) return;
        latest.current.options.onProgress?.(progress);
        // Later events belong to calls, whose callers have callbacks of their own.
        if (!current.current) setState((state) => ({ ...state, progress }));
      };
      try {
        const emu = await load(pack!, { ...rest, signal, onProgress });
        if (signal.aborted) return void emu.dispose();
        current.current = { emu, signal };
        signal.addEventListener("abort", () => void emu.dispose(), { once: true });
        setState((state) => ({ ...state, emu }));
      } catch (error) {
        if (!signal.aborted) setState((state) => ({ ...state, error: toError(error) }));
      }
    };
    void begin();
    return () => {
      stop.abort();
      current.current = null;
      setState(NOTHING);
    };
  }, [wanted]);

  const chat = useCallback(async function* (messages: readonly Message[], options: ChatOptions = {}) {
    const loaded = current.current;
    if (!loaded) throw new EmuError("bad-request", "The model is not loaded yet. Wait until `ready` is true.");
    const { emu, signal } = loaded;
    // `AbortSignal.any` requires Safari 17.4.
    const left = new AbortController();
    const unlisten = [signal, options.signal].map((signal) => follow(left, signal));
    try {
      yield* emu.chat(messages, { ...options, signal: left.signal });
    } catch (error) {
      // The model was disposed of at the same moment.
      throw signal.aborted && !isAbort(error) ? abortError() : error;
    } finally {
      for (const remove of unlisten) remove();
    }
  }, []);
  const reload = useCallback(() => setAttempt((attempt) => attempt + 1), []);

  return { ...state, ready: state.emu !== null, chat, reload };
}

function toError(error: unknown): Error {
  return error instanceof Error ? error : new Error(String(error));
}
