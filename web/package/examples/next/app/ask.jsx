"use client";

import { pack } from "emu-webgpu-mini";
import { useEmu } from "emu-webgpu/react";
import { useState } from "react";

export function Ask() {
  const { ready, progress, error, chat } = useEmu(pack);
  const [answer, setAnswer] = useState("");

  async function ask(file) {
    setAnswer("");
    for await (const event of chat([{ role: "user", content: [file, "what is on the left?"] }])) {
      if (event.type === "text") setAnswer((text) => text + event.text);
    }
  }

  if (error) return <p role="alert">{error.message}</p>;
  if (!ready) return <p role="status">Loading{progress?.phase === "download" && `: ${Math.round((100 * progress.loadedAll) / progress.totalAll)}%`}</p>;
  return (
    <>
      <p>
        <label>
          A picture: <input type="file" accept="image/*" onChange={({ target }) => ask(target.files[0])} />
        </label>
      </p>
      <p id="output">{answer}</p>
    </>
  );
}
