import type { Attachment } from "../adapter/attach.ts";
import { nearest } from "../errors.ts";
import { faultsError, quoteName } from "../formats/faults.ts";
import { formatShape, sameShape, type Shape } from "../tensor/shape.ts";
import { trainableParameters, type TrainPlan } from "../train/plan.ts";

/**
 * Makes sure that the adapter's tensors are the trainable parameters of the model `plan`, in their shapes.
 * @param copies names of tensors that a tied head has of its embedding, which no parameter stands for
 * @throws LorikeetError `adapter-mismatch` listing every fault, with the nearest names
 */
export function checkAdapter(
  plan: TrainPlan,
  { values }: Pick<Attachment, "values">,
  copies: ReadonlySet<string>,
): void {
  const faults: string[] = [];
  const wanted = new Map(trainableParameters(plan).map(({ name, shape }) => [name!, shape]));
  const unused = [...values.keys()].filter((name) => !wanted.has(name));
  const missing = [...wanted.keys()].filter((name) => !values.has(name));
  for (const [name, shape] of wanted) {
    const got = values.get(name)?.shape;
    if (got === undefined)
      faults.push(`${quoteName(name)} ${formatShape(shape)} is missing${near(name, unused)}`);
    else if (!sameShape(got, shape))
      faults.push(
        `${quoteName(name)} is ${formatShape(got)}, this model needs ${formatShape(shape)}${resized(got, shape, plan.config["vocab_size"])}`,
      );
  }
  for (const name of unused)
    if (!copies.has(name))
      faults.push(`${quoteName(name)} belongs to no layer of this model${near(name, missing)}`);
  if (faults.length > 0)
    throw faultsError(
      "adapter-mismatch",
      "the tensors of an adapter of this model",
      faults,
      "Use the base that the adapter was trained on: base_model_name_or_path in its adapter_config.json.",
    );
}

function near(name: string, candidates: readonly string[]): string {
  const [nearby] = nearest(name, candidates, 1);
  return nearby === undefined ? "" : `; near is ${quoteName(nearby)}`;
}

/** Says so where only the vocabulary differs. */
function resized(got: Shape, wanted: Shape, vocabulary: unknown): string {
  const axis = wanted.findIndex((size, i) => size === vocabulary && got[i] !== size);
  const others = got.filter((_, i) => i !== axis).join();
  if (axis < 0 || others !== wanted.filter((_, i) => i !== axis).join()) return "";
  return `: the adapter was trained with a vocabulary of ${got[axis]!} tokens`;
}
