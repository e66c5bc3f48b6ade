// A service worker has no workers of its own, so models run in pages. It can fetch a pack ahead.
import { prefetch } from "emu-webgpu/prefetch";

chrome.runtime.onInstalled.addListener(() => prefetch(chrome.runtime.getURL("emu-mini/")));
chrome.action.onClicked.addListener(() => chrome.tabs.create({ url: "index.html" }));
