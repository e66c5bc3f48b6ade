// A component of the server. The package can be imported here, but models are loaded by components of the client.
import { VERSION } from "emu-webgpu";

import { Ask } from "./ask.jsx";

export default function Page() {
  return (
    <main>
      <h1>emu-webgpu {VERSION}</h1>
      <Ask />
    </main>
  );
}
