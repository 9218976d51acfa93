import { expect, it } from "vitest";
import { encoderFixtures } from "../../test/support/batches.ts";
import { causalFixtures, fixture } from "../../test/support/fixtures.ts";
import { currentWeightName } from "./weight-names.ts";

it.each([...causalFixtures, ...encoderFixtures])(
  "%s: keeps names, and gives base models their prefix",
  async (name) => {
    const { config, weights } = await fixture(name);
    const type = String(config["model_type"]);
    for (const key of weights.keys()) {
      expect(currentWeightName(type, key)).toBe(key);
      const isHead = /^(lm_head|embed_out|classifier|head)\./.test(key);
      const headless = isHead ? key : key.slice(key.indexOf(".") + 1);
      expect(currentWeightName(type, headless)).toBe(key);
    }
  },
);

it("knows the first names of BERT's layer norms", () => {
  const name = "bert.encoder.layer.0.output.LayerNorm";
  expect(currentWeightName("bert", `${name}.gamma`)).toBe(`${name}.weight`);
  expect(currentWeightName("bert", "embeddings.LayerNorm.beta")).toBe(
    "bert.embeddings.LayerNorm.bias",
  );
});

it("leaves names of families that it does not know", () => {
  expect(currentWeightName("t5", "encoder.block.0.weight")).toBe("encoder.block.0.weight");
});
