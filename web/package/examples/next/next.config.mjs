/** A static site: nothing of the model runs on a server. */
export default { output: "export" };
