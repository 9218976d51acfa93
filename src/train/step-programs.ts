import type { PairedProgram, Program } from "../backends/backend.ts";
import { keptPrograms } from "../backends/kept-programs.ts";
import { tensor } from "../tensor/tensor.ts";
import { halvesOf } from "./halves.ts";
import { programCache, sizesOf } from "./program-cache.ts";
import type { TrainSetup } from "./setup.ts";

/** As `programCache`, of steps: where the engine gains from it, both halves of a batch run at the same time. */
export function stepPrograms({
  engine,
  graphFor,
  leanGraphFor,
}: Pick<TrainSetup, "engine" | "graphFor" | "leanGraphFor">): ReturnType<typeof programCache> {
  const whole = programCache(engine, graphFor, leanGraphFor);
  const paired = keptPrograms();
  return {
    get(batch) {
      const halves = engine.compilePaired && halvesOf(batch);
      if (!halves) return whole.get(batch);
      return paired.get(`${sizesOf(batch)} in ${sizesOf(halves[0])}`, async () => {
        const program = await engine.compilePaired!(graphFor(halves[0]));
        return program ? inHalves(program) : whole.get(batch);
      });
    },
    isLean: whole.isLean,
    async dispose() {
      await paired.dispose();
      await whole.dispose();
    },
  };
}

function inHalves(program: PairedProgram): Program {
  return {
    async run(feeds) {
      const [a, b] = await program.run(halvesOf(feeds)!);
      const loss = Number(a["loss"]!.data[0]) + Number(b["loss"]!.data[0]);
      return { loss: tensor("f32", [], Float32Array.of(loss)) };
    },
    dispose: () => program.dispose(),
  };
}
