import { spawnSync } from "node:child_process";
import { defineConfig, type ViteUserConfig } from "vitest/config";
import { closingLineReporter } from "./scripts/closing-line-reporter.ts";
import { onnxWorkerBundle } from "./scripts/onnx-worker-bundle.ts";

const hasGpu = spawnSync("nvidia-smi", ["-L"]).status === 0;

const config: ViteUserConfig = defineConfig({
  plugins: [onnxWorkerBundle],
  test: {
    reporters: ["default", closingLineReporter],
    maxWorkers: 2,
    // files share a process, as starting one and loading its modules took longer than most files' tests
    isolate: false,
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
        test: {
          name: "onnx",
          include: ["{src,test}/**/*.onnx.test.ts"],
        },
      },
      {
        extends: true,
        test: {
          name: "cuda",
          include: ["{src,test}/**/*.cuda.test.ts"],
          maxWorkers: 1,
          sequence: { groupOrder: 1 },
          provide: { hasGpu },
          setupFiles: ["./scripts/skip-without-gpu.ts"],
        },
      },
    ],
  },
});

export default config;
