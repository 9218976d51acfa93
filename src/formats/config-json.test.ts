import { expect, test } from "vitest";
import { configJson } from "./config-json.ts";

test("whole floats stay floats, whole numbers stay whole", () => {
  const original = `{"cap": 30.0, "rope": {"theta": 1e4, "eps": 1e-5}, "layers": 3, "text": "x: 2.0"}`;
  const text = configJson(JSON.parse(original), original);
  expect(text).toContain('"cap": 30.0,');
  expect(text).toContain('"theta": 10000.0,');
  expect(text).toContain('"eps": 0.00001');
  expect(text).toContain('"layers": 3,');
  expect(JSON.parse(text)).toEqual(JSON.parse(original));
});

test("a changed value of a field of floats is a float, and the caps of Gemma 2 are without an original", () => {
  expect(configJson({ cap: 7 }, `{"cap": 30.0}`)).toBe('{\n  "cap": 7.0\n}\n');
  expect(configJson({ final_logit_softcapping: 30 })).toContain("30.0");
  expect(configJson({ final_logit_softcapping: null })).toContain("null");
});
