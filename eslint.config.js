import prettier from "eslint-config-prettier";
import tseslint from "typescript-eslint";
import { portable } from "./scripts/layers.js";

const code = { skipBlankLines: true, skipComments: true };
const enums = { selector: "TSEnumDeclaration", message: "Use a union of string literals." };
const defaults = {
  selector: "ExportDefaultDeclaration",
  message: "Export by name, so that every file calls it the same.",
};
const opSwitch = {
  selector: "SwitchStatement > MemberExpression[property.name='name'][object.property.name='op']",
  message: "Ops declare, passes ask: put the rule into the op's file.",
};

export default tseslint.config(
  { ignores: ["dist", "out", "coverage", "models", "**/fixtures"] },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  tseslint.configs.strictTypeChecked,
  {
    languageOptions: { parserOptions: { projectService: true } },
    rules: {
      "max-lines": ["error", { max: 300, ...code }],
      "max-lines-per-function": ["error", { max: 60, ...code }],
      complexity: ["error", 15],
      "max-params": ["error", 4],
      eqeqeq: "error",
      "no-warning-comments": ["error", { terms: ["todo", "fixme", "xxx"] }],
      "no-restricted-syntax": ["error", enums, defaults, opSwitch],
      "@typescript-eslint/no-floating-promises": "error",
      "@typescript-eslint/consistent-type-imports": ["error", { fixStyle: "inline-type-imports" }],
      "@typescript-eslint/no-unused-vars": [
        "error",
        { argsIgnorePattern: "^_", varsIgnorePattern: "^_", ignoreRestSiblings: true },
      ],
      "@typescript-eslint/restrict-template-expressions": [
        "error",
        { allowNumber: true, allowBoolean: true },
      ],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // `false as boolean` is how a default value's type is kept wide
      "@typescript-eslint/no-unnecessary-type-assertion": ["error", { typesToIgnore: ["boolean"] }],
      // `!` is the price of noUncheckedIndexedAccess in numeric loops
      "@typescript-eslint/no-non-null-assertion": "off",
      // noPropertyAccessFromIndexSignature asks for the brackets that this forbids
      "@typescript-eslint/dot-notation": "off",
      // an implementation may have nothing to wait for where its interface is asynchronous
      "@typescript-eslint/require-await": "off",
    },
  },
  {
    files: [`src/{${portable.join(",")}}/**/*.ts`, "src/errors.ts"],
    ignores: ["**/*.test.ts"],
    rules: {
      "no-restricted-globals": [
        "error",
        ...["process", "Buffer", "require", "__dirname", "setImmediate"].map((name) => ({
          name,
          message: "This folder runs in a browser too.",
        })),
      ],
    },
  },
  {
    files: ["src/**/*.ts"],
    ignores: ["src/cli/**"],
    rules: { "no-console": "error" },
  },
  {
    files: ["**/*.test.ts"],
    rules: {
      "max-lines": ["error", { max: 500, ...code }],
      "max-lines-per-function": "off",
    },
  },
  {
    files: ["*.config.{js,ts}", ".dependency-cruiser.mjs"],
    rules: { "no-restricted-syntax": ["error", enums] },
  },
  { files: ["**/*.{js,mjs}"], extends: [tseslint.configs.disableTypeChecked] },
  prettier,
);
