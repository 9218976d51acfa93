import { expect, test } from "vitest";
import { Captured } from "../../test/support/command.ts";
import { showDownload } from "./download.ts";

const PIECES = [
  { file: "config.json", have: 700, size: 700 },
  { file: "model.safetensors", have: 2 ** 20, size: 4 * 2 ** 20 },
  { file: "model.safetensors", have: 2 * 2 ** 20, size: 4 * 2 ** 20 },
  { file: "model.safetensors", have: 4 * 2 ** 20, size: 4 * 2 ** 20 },
];

test("a download is told at its start and its end; on a terminal one line moves", () => {
  const plain = new Captured();
  PIECES.forEach(showDownload(plain));
  expect(plain.text.split("\n")).toEqual([
    "config.json  1 KiB of 1 KiB  100 %",
    "model.safetensors  1 MiB of 4 MiB  25 %",
    "model.safetensors  4 MiB of 4 MiB  100 %",
    "",
  ]);
  const terminal = Object.assign(new Captured(), { isTTY: true });
  PIECES.forEach(showDownload(terminal));
  expect(terminal.text.split("\n")).toHaveLength(3);
  expect(terminal.text).toContain("\r\u001b[Kmodel.safetensors  2 MiB of 4 MiB  50 %");
});
