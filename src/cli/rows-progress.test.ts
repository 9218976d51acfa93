import { expect, test } from "vitest";
import { Captured } from "../../test/support/command.ts";
import { showRows } from "./rows-progress.ts";

test("rows are told where there are many: a line that goes away on a terminal, else one in 10,240", () => {
  const [plain, terminal] = [new Captured(), Object.assign(new Captured(), { isTTY: true })];
  for (const stream of [plain, terminal]) {
    const progress = showRows(stream);
    for (let rows = 256; rows <= 25_600; rows += 256) progress.read(rows);
    progress.end();
    progress.end();
  }
  expect(plain.text).toBe("reading data: 10,240 rows\nreading data: 20,480 rows\n");
  expect(terminal.text).toMatch(/^\r\u001b\[Kreading data: 2,048 rows\r/);
  expect(terminal.text).toMatch(/reading data: 25,600 rows\r\u001b\[K$/);
});
