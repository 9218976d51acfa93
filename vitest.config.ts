import { spawnSync } from "node:child_process";
import { defineConfig, type ViteUserConfig } from "vitest/config";
import { closingLineReporter } from "./scripts/closing-line-reporter.ts";

const hasGpu = spawnSync("nvidia-smi", ["-L"]).status === 0;

const config: ViteUserConfig = defineConfig({
  test: {
    reporters: ["default", closingLineReporter],
    maxWorkers: 2,
    // worker threads load sources that Vitest does not transform
    execArgv: ["--import", new URL("./scripts/typescript.js", import.meta.url).href],
    testTimeout: 60_000,
    hookTimeout: 60_000,
    projects: [
      {
        extends: true,
        test: {
          name: "unit",
          include: ["{src,test}/**/*.test.ts"],
          exclude: ["**/*.{onnx,cuda}.test.ts"],
        },
      },
      {
        extends: true,
        // one file at a time, as an ONNX session takes every core
        test: {
          name: "onnx",
          include: ["{src,test}/**/*.onnx.test.ts"],
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
        },
      },
      {
        extends: true,
        test: {
          name: "cuda",
          include: ["{src,test}/**/*.cuda.test.ts"],
          maxWorkers: 1,
          sequence: { groupOrder: 2 },
          provide: { hasGpu },
          setupFiles: ["./scripts/skip-without-gpu.ts"],
        },
      },
    ],
  },
});

export default config;
