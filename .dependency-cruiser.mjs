/** @file Import rules of `npm run layers`; the table itself is scripts/layers.js. */
import { allowedFrom, filesOf, layers, portable } from "./scripts/layers.js";

const test = "[.]test[.]ts$";

const directions = layers.map((layer) => ({
  name: `layer-${layer}`,
  comment: `${layer} may import ${allowedFrom(layer).join(", ")}`,
  severity: "error",
  from: { path: filesOf([layer]), pathNot: test },
  to: { path: "^(src|test|bench|scripts)/", pathNot: filesOf(allowedFrom(layer)) },
}));

/** @type {import("dependency-cruiser").IConfiguration} */
export default {
  forbidden: [
    ...directions,
    {
      name: "in-the-table",
      comment: "each file of src belongs to a layer of scripts/layers.js",
      severity: "error",
      from: { path: "^src/", pathNot: filesOf(layers) },
      to: {},
    },
    {
      name: "portable",
      comment: "these folders run in a browser too: bytes arrive as async iterables",
      severity: "error",
      from: { path: filesOf(portable), pathNot: test },
      to: { dependencyTypes: ["core"] },
    },
    {
      name: "no-cycles",
      comment:
        "Gradients of ops name each other and are called late. Cycles of types alone are gone after compiling.",
      severity: "error",
      from: { pathNot: "^src/ops/" },
      to: { circular: true, viaOnly: { dependencyTypesNot: ["type-only"] } },
    },
    {
      name: "tests-are-leaves",
      severity: "error",
      from: {},
      to: { path: test },
    },
    {
      name: "resolvable",
      comment: "a package must stand in package.json, a file must exist",
      severity: "error",
      from: {},
      to: { couldNotResolve: true },
    },
  ],
  options: {
    doNotFollow: { path: "node_modules" },
    tsConfig: { fileName: "tsconfig.json" },
    tsPreCompilationDeps: true,
    enhancedResolveOptions: { exportsFields: ["exports"], conditionNames: ["import", "node"] },
  },
};
