// @ts-check
/* A test double of the package with the model: a URL without files. */

export const url = new URL("./pack/", import.meta.url).href;
