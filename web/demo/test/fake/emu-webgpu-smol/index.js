// @ts-check
/* A test double of the package with the model: an address where nothing lies. */

export const url = new URL("./pack/", import.meta.url).href;
