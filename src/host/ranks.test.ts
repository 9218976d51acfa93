import { describe, expect, it } from "vitest";
import { readRank } from "./ranks.ts";

describe("readRank", () => {
  it("is undefined without a launcher, and for a process alone", () => {
    expect(readRank({})).toBeUndefined();
    expect(readRank({ RANK: "0", WORLD_SIZE: "1" })).toBeUndefined();
  });

  it("reads torchrun's variables; the port after its own", () => {
    const shared = { MASTER_ADDR: "node1", MASTER_PORT: "29500", LOCAL_WORLD_SIZE: "2" };
    expect(readRank({ RANK: "3", WORLD_SIZE: "4", LOCAL_RANK: "1", ...shared })).toEqual({
      ...{ rank: 3, size: 4, local: 1, address: "node1:29501" },
    });
  });

  it("reads Open MPI's variables; one machine needs no address", () => {
    const environment = {
      ...{ OMPI_COMM_WORLD_RANK: "1", OMPI_COMM_WORLD_SIZE: "2" },
      ...{ OMPI_COMM_WORLD_LOCAL_RANK: "1", OMPI_COMM_WORLD_LOCAL_SIZE: "2" },
    };
    expect(readRank(environment, 4321)).toEqual({
      ...{ rank: 1, size: 2, local: 1, address: "127.0.0.1:24321" },
    });
  });

  it("reads MPICH's variables", () => {
    const environment = {
      PMI_RANK: "0",
      PMI_SIZE: "2",
      MPI_LOCALRANKID: "0",
      MPI_LOCALNRANKS: "2",
    };
    expect(readRank(environment, 7)).toMatchObject({ rank: 0, size: 2, local: 0 });
  });

  it("reads Slurm's variables in a step, not in a batch script", () => {
    const script = { SLURM_PROCID: "0", SLURM_NTASKS: "4", SLURM_JOB_ID: "12" };
    expect(readRank(script)).toBeUndefined();
    const step = {
      ...{ ...script, SLURM_PROCID: "2", SLURM_STEP_NUM_TASKS: "4", SLURM_LOCALID: "0" },
      ...{ SLURM_STEP_TASKS_PER_NODE: "2(x2)", SLURM_LAUNCH_NODE_IPADDR: "10.0.0.1" },
    };
    expect(readRank(step)).toEqual({ rank: 2, size: 4, local: 0, address: "10.0.0.1:20012" });
  });

  it("asks for the address of rank 0 where there are several machines", () => {
    const environment = {
      PMI_RANK: "1",
      PMI_SIZE: "4",
      MPI_LOCALRANKID: "1",
      MPI_LOCALNRANKS: "2",
    };
    expect(() => readRank(environment)).toThrow(
      expect.objectContaining({ code: "ranks" }) as Error,
    );
  });

  it("refuses a rank beyond the number of processes", () => {
    expect(() => readRank({ RANK: "4", WORLD_SIZE: "4" })).toThrow(/below WORLD_SIZE \(4\), got 4/);
  });
});
