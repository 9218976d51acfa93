/** @file Lets Node versions that do not strip types themselves (below 22.18) run the sources: `node --import ./scripts/typescript.js file.ts`. */
import { register } from "node:module";

register("./typescript-hooks.js", import.meta.url);
