/** Version of this package, of the WASM modules and of the packs made beside them. */
export const VERSION = "0.1.0";

/** The pack format that is read. */
export const FORMAT = 1;
