/** A picture from the camera. The camera runs only while its dialog is open. */

import { $ } from "./dom.js";
import { png } from "./media.js";

const dialog = $<HTMLDialogElement>("camera");
const view = $<HTMLVideoElement>("camera-view");
const status = $("camera-status");
const shoot = $<HTMLButtonElement>("camera-shoot");
const turn = $<HTMLButtonElement>("camera-turn");

/** Whether this browser lets the page ask for a camera. */
export const hasCamera = (): boolean => Boolean(navigator.mediaDevices?.getUserMedia);

let facing: "user" | "environment" = "environment";

function stop(): void {
  const stream = view.srcObject as MediaStream | null;
  for (const track of stream?.getTracks() ?? []) track.stop();
  view.srcObject = null;
}

async function start(): Promise<void> {
  stop();
  shoot.disabled = true;
  status.textContent = "Waiting for the camera. Your browser may ask for permission.";
  try {
    const stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: facing }, audio: false });
    view.srcObject = stream;
    // The dialog was closed while the browser asked for permission.
    if (!dialog.open) return stop();
    await view.play();
    const cameras = (await navigator.mediaDevices.enumerateDevices()).filter(({ kind }) => kind === "videoinput");
    turn.hidden = cameras.length < 2;
    status.textContent = "The picture stays on this device.";
    shoot.disabled = false;
    shoot.focus();
  } catch (error) {
    const refused = error instanceof DOMException && error.name === "NotAllowedError";
    status.textContent = refused
      ? "Camera access was denied. Allow it in the browser's site settings, or attach a file instead."
      : "No camera is available. Connect one, or attach a file instead.";
  }
}

/** Lets the visitor take a picture; resolves to null if none was taken. */
export function takePicture(): Promise<Blob | null> {
  dialog.showModal();
  void start();
  return new Promise((resolve) => {
    const over = new AbortController();
    const { signal } = over;
    const finish = (result: Promise<Blob> | null) => {
      over.abort();
      resolve(result);
      dialog.close();
      stop();
    };
    const listen = (element: HTMLElement, event: string, act: () => void) => element.addEventListener(event, act, { signal });
    listen(shoot, "click", () => finish(png(view.videoWidth, view.videoHeight, (context) => context.drawImage(view, 0, 0))));
    listen(turn, "click", () => {
      facing = facing === "user" ? "environment" : "user";
      void start();
    });
    listen(dialog, "close", () => finish(null));
  });
}
