import { readFileSync } from "node:fs";
import ts from "typescript";
import { expect, test } from "vitest";

test("nothing that is published points to sources, which the package does not hold", () => {
  const { files } = JSON.parse(readFileSync("package.json", "utf8")) as { files: string[] };
  expect(files).not.toContain("src");
  const read = ts.getParsedCommandLineOfConfigFile(
    "tsconfig.build.json",
    {},
    { ...ts.sys, onUnRecoverableConfigFileDiagnostic: (fault) => expect(fault).toBeUndefined() },
  );
  expect(read!.options).toMatchObject({ outDir: expect.stringMatching(/dist$/) as string });
  expect(read!.options.sourceMap ?? false).toBe(false);
  expect(read!.options.declarationMap ?? false).toBe(false);
});
