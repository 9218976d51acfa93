import { describe, expect, it } from "vitest";
import { Random } from "../tensor/random.ts";
import { sampleToken, type SamplingOptions } from "./sampling.ts";
import { stopFilter } from "./stop-text.ts";

const logits = Float32Array.from([0, 3, 1, 2, -1].map((x) => x * Math.LN2)); // probabilities 1 : 8 : 2 : 4 : 0.5

function frequencies(options: SamplingOptions, history: number[] = []): number[] {
  const random = new Random(1);
  const counts = new Array<number>(5).fill(0);
  for (let i = 0; i < 4000; i++) counts[sampleToken(logits, history, options, random)]! += 1 / 4000;
  return counts;
}

function expectNear(got: number[], want: number[]): void {
  const total = want.reduce((sum, x) => sum + x);
  want.forEach((x, i) => {
    expect(Math.abs(got[i]! - x / total)).toBeLessThan(0.03);
  });
}

describe("sampleToken", () => {
  it("is greedy at temperature 0", () => {
    expect(sampleToken(logits, [], {}, new Random(5))).toBe(1);
  });
  it("refuses logits that are not numbers", () => {
    for (const [bad, temperature] of [[NaN, 0], [NaN, 1], [Infinity, 0]] as const)
      expect(() => sampleToken(Float32Array.of(0, 1, bad), [], { temperature }, new Random(5))).toThrow(`got ${bad} for token 2`);
    expect(sampleToken(Float32Array.of(-Infinity, 1), [], {}, new Random(5))).toBe(1);
  }); // prettier-ignore
  it("samples from the softmax", () => {
    expectNear(frequencies({ temperature: 1 }), [1, 8, 2, 4, 0.5]);
  });
  it("sharpens with a low temperature", () => {
    expectNear(frequencies({ temperature: 0.5 }), [1, 64, 4, 16, 0.25]);
  });
  it("keeps the k most likely", () => {
    expectNear(frequencies({ temperature: 1, topK: 2 }), [0, 8, 0, 4, 0]);
  });
  it("keeps all that are as likely as the k-th", () => {
    const tied = Float32Array.of(0, 3, 2, 2, 2, 1);
    const random = new Random(2);
    const drawn = Array.from({ length: 200 }, () =>
      sampleToken(tied, [], { temperature: 4, topK: 2 }, random),
    );
    expect([...new Set(drawn)].sort()).toEqual([1, 2, 3, 4]);
  });
  it.each([{ topK: 40 }, { topP: 0.9 }, { minP: 0.05 }, { topK: 300, topP: 0.8, minP: 0.01 }])(
    "draws from a large vocabulary with %j what sorting all of it gives",
    (options: SamplingOptions) => {
      const random = new Random(3);
      const scores = Float32Array.from({ length: 3000 }, () => 3 * random.normal());
      const order = Array.from(scores.keys()).sort((a, b) => scores[b]! - scores[a]!);
      const weights = order.map((id) => Math.exp((scores[id]! - scores[order[0]!]!) / 0.8));
      const { topK = 3000, topP = 1, minP = 0 } = options;
      const wanted = topP * weights.slice(0, topK).reduce((sum, weight) => sum + weight);
      let sum = 0;
      const nucleus = weights.findIndex((weight) => (sum += weight) >= wanted) + 1;
      const count = Math.min(topK, nucleus || topK, weights.findLastIndex((w) => w >= minP) + 1);
      const kept = weights.slice(0, count);
      const [ours, theirs] = [new Random(4), new Random(4)];
      for (let i = 0; i < 30; i++) {
        let rest = theirs.uniform() * kept.reduce((total, weight) => total + weight, 0);
        const want = order[kept.findIndex((weight) => (rest -= weight) < 0)];
        expect(sampleToken(scores, [], { temperature: 0.8, ...options }, ours)).toBe(want);
      }
    },
  );
  it("keeps the nucleus, with the token that crosses its edge", () => {
    expectNear(frequencies({ temperature: 1, topP: 0.6 }), [0, 8, 0, 4, 0]);
    expectNear(frequencies({ temperature: 1, topP: 0.5 }), [0, 1, 0, 0, 0]);
  });
  it("keeps tokens of at least a share of the likeliest", () => {
    expectNear(frequencies({ temperature: 1, minP: 0.24 }), [0, 8, 2, 4, 0]);
  });
  it("makes tokens that occurred less likely, whatever the sign of their logit", () => {
    const options = { repetitionPenalty: 2 };
    expect(sampleToken(logits, [1], options, new Random(5))).toBe(3);
    expect(
      sampleToken(
        logits.map((x) => x - 10),
        [1],
        options,
        new Random(5),
      ),
    ).toBe(3);
  });
  it("gives the same tokens for the same seed", () => {
    const draw = (): number[] => {
      const random = new Random(9);
      return Array.from({ length: 50 }, () => sampleToken(logits, [], { temperature: 2 }, random));
    };
    expect(draw()).toEqual(draw());
  });
});

describe("stopFilter", () => {
  it("cuts at the first stop string, also when it comes in pieces", () => {
    const filter = stopFilter(["END", "\n\n"]);
    expect(["a E", "N", "x E", "ND more"].map((piece) => filter.push(piece))).toEqual([
      { text: "a ", stopped: false },
      { text: "", stopped: false },
      { text: "ENx ", stopped: false },
      { text: "", stopped: true },
    ]);
  });
  it("gives held text back when nothing more comes", () => {
    const filter = stopFilter(["END"]);
    expect(filter.push("the EN").text + filter.flush()).toBe("the EN");
  });
});
