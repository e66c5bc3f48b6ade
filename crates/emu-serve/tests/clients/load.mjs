/**
 * 64 clients at once against a server with the fake engine: calls of every kind, clients that leave while they wait or read, slow
 * and broken bodies, wrong keys. Ends with an error if an answer is wrong or missing. Started by `tests/serve/load.rs`.
 */

import { connect } from "node:net";
import { setTimeout as sleep } from "node:timers/promises";

const CLIENTS = 64;
const server = process.env.LOAD_SERVER;
const end = Date.now() + Number(process.env.LOAD_SECONDS) * 1000;
const base = `http://${server}`;
const auth = { Authorization: "Bearer key" };
const json = { ...auth, "Content-Type": "application/json" };
const png =
  "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAIAAACQd1PeAAAADElEQVR4nGP43+AAAARBAcAM0e2RAAAAAElFTkSuQmCC";
const url = `data:image/png;base64,${png}`;
/** A picture of 1.5 MB, as far as the server looks at it. */
const large = `data:image/png;base64,${png.slice(0, 64)}${"A".repeat(2_000_000)}`;
const counts = {};

const count = (what) => (counts[what] = (counts[what] ?? 0) + 1);
const random = (n) => Math.floor(Math.random() * n);

function check(holds, what) {
  if (!holds) throw new Error(what);
}

/** Sends a request, again after the given time if the queue is full. */
async function send(path, body, options = {}) {
  for (;;) {
    const response = await fetch(base + path, { method: "POST", headers: json, body, ...options });
    if (response.status !== 429) return response;
    const { error } = await response.json();
    check(error.code === "queue_full" && Number(response.headers.get("Retry-After")) >= 1, "a refusal without time");
    count("refused by a full queue");
    if (Date.now() > end) return null;
    await sleep(100 + random(400));
  }
}

const chat = (content, more = {}) => JSON.stringify({ messages: [{ role: "user", content }], ...more });

async function answers(path, body, options) {
  const response = await send(path, body, options);
  if (!response) return null;
  check(response.status === 200, `${path}: status ${response.status}: ${response.ok ? "" : await response.text()}`);
  return response.json();
}

const actions = {
  async text() {
    const n = 1 + random(20);
    const answer = await answers("/v1/chat/completions", chat(`say ${n}`));
    if (answer) check(answer.choices[0].message.content === `[-] 1: say ${n}`, "another text");
  },
  async stream() {
    const n = 1 + random(60);
    const response = await send("/v1/chat/completions", chat(`count to ${n}`, { stream: true }));
    if (!response) return;
    const text = await response.text();
    check(text.endsWith("data: [DONE]\n\n"), "a stream without end");
    const chunks = text.split("\n\n").filter((line) => line.startsWith("data: {"));
    const told = chunks.map((line) => JSON.parse(line.slice(6)).choices[0].delta.content ?? "").join("");
    check(told === Array.from({ length: n }, (_, i) => `${i + 1} `).join(""), "another stream");
  },
  async picture() {
    const answer = await answers("/v1/chat/completions", chat([{ type: "image_url", image_url: { url: large } }]));
    if (answer) check(answer.choices[0].message.content === "[-] 1: *", "another picture");
  },
  async draw() {
    const answer = await answers("/v1/images/generations", JSON.stringify({ prompt: "a dog", steps: 20, seed: 3 }));
    if (answer) check(answer.data[0].b64_json === png && answer.data[0].seed === 3, "another drawing");
  },
  async blend() {
    const form = () => {
      const form = new FormData();
      for (const name of ["a.png", "b.png"]) form.append("image[]", new Blob([Buffer.from(png, "base64")]), name);
      form.append("prompt", "both");
      return form;
    };
    const answer = await answers("/v1/images/edits", form(), { headers: auth });
    if (answer) check(answer.data.length === 1, "no picture");
  },
  async embed() {
    const answer = await answers("/v1/embeddings", JSON.stringify({ input: [url, url, url] }));
    if (answer) check(answer.data.length === 3, "other embeddings");
  },
  async leaves() {
    const signal = AbortSignal.timeout(random(300));
    const call = send("/v1/chat/completions", chat("count to 500", { stream: random(2) === 0 }), { signal });
    await call.then((response) => response?.text()).catch((error) => check(/abort|timeout/i.test(error.name), `${error}`));
  },
  async "leaves without a word"() {
    const body = chat("count to 500", { stream: true });
    const socket = connect(Number(server.split(":")[1]), server.split(":")[0]);
    socket.on("error", () => {});
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: ${server}\r\nContent-Type: application/json\r\n`;
    socket.write(`${head}Authorization: Bearer key\r\nContent-Length: ${body.length}\r\n\r\n${body}`);
    await sleep(random(300));
    socket.resetAndDestroy();
  },
  async "slow body"() {
    const body = chat("slowly");
    const status = await slowly(body, random(60));
    check([200, 408, 429].includes(status), `status ${status} for a slow body`);
    count(`slow body: ${status}`);
  },
  async "broken body"() {
    const socket = connect(Number(server.split(":")[1]), server.split(":")[0]);
    socket.on("error", () => {});
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: ${server}\r\nContent-Type: application/json\r\n`;
    socket.write(`${head}Authorization: Bearer key\r\nContent-Length: 5000\r\n\r\n{"messages": [`);
    await sleep(random(100));
    socket.destroy();
  },
  async "wrong key"() {
    const headers = { ...json, Authorization: "Bearer other" };
    const { status } = await fetch(`${base}/v1/chat/completions`, { method: "POST", headers, body: chat("a") });
    check(status === 401, `status ${status} for a wrong key`);
  },
  async "wrong body"() {
    const response = await send("/v1/chat/completions", "{");
    if (response) check(response.status === 400, `status ${response.status} for a wrong body`);
  },
  async health() {
    const response = await fetch(`${base}/health`);
    check(response.status === 200 && (await response.json()).status === "ok", "not healthy");
  },
};

/** Sends a body in pieces with pauses. Returns the status. */
function slowly(body, pause) {
  return new Promise((done, failed) => {
    const socket = connect(Number(server.split(":")[1]), server.split(":")[0]);
    const head = `POST /v1/chat/completions HTTP/1.1\r\nHost: ${server}\r\nContent-Type: application/json\r\n`;
    let received = "";
    socket.setTimeout(60_000, () => failed(new Error("no answer to a slow body")));
    socket.on("error", failed);
    socket.on("data", (data) => {
      received += data;
      const status = /^HTTP\/1\.1 (\d+)/.exec(received);
      if (!status) return;
      done(Number(status[1]));
      socket.destroy();
    });
    socket.on("close", () => failed(new Error("closed without an answer")));
    socket.write(`${head}Authorization: Bearer key\r\nContent-Length: ${body.length}\r\n\r\n`);
    (async () => {
      for (const letter of body) {
        if (socket.destroyed) return;
        socket.write(letter);
        await sleep(pause);
      }
    })();
  });
}

async function client() {
  const names = Object.keys(actions);
  while (Date.now() < end) {
    const name = names[random(names.length)];
    const begun = Date.now();
    try {
      await actions[name]();
      count(name);
    } catch (error) {
      const seconds = Math.round((Date.now() - begun) / 1000);
      count(`LOST ${name} after ${seconds} s: ${error.message} ${error.cause ?? ""}`);
    }
  }
}

await Promise.all(Array.from({ length: CLIENTS }, client));
console.log(JSON.stringify(counts, null, 1));
process.exit(Object.keys(counts).some((name) => name.startsWith("LOST")) ? 1 : 0);
