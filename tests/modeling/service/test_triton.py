"""A real Triton serves the model repository of an export: `OVERNIGHT_TRITON=VENV pytest tests/modeling/service/test_triton.py`.

VENV is a virtual environment with `nvidia-pytriton`, which carries the server, and `onnxruntime`. Of backends that wheel has
Python's alone, so ONNX is run by onnxruntime within it; what Triton does by config.pbtxt (names, types, shapes, batches of
requests that wait) is the server's own.
"""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest

from modeling.service.dense import Dense
from modeling.service.export import export
from modeling.service.recommender import Recommender
from modeling.service.retrieval import query_vectors
from tests.flows.conftest import free_port
from tests.modeling.service.test_export import CASES, dense_of, model_of
from tests.modeling.test_inputs import sessions_of
from tests.modeling.test_items import write_folder

VENV = os.environ.get("OVERNIGHT_TRITON", "")
SECONDS = 120  # until the server answers
TYPES = {"int64": "INT64", "float32": "FP32"}
BACKEND = """
import json, os
import onnxruntime
import triton_python_backend_utils as triton

class TritonPythonModel:
    @staticmethod
    def auto_complete_config(config):
        return config

    def initialize(self, args):
        file = os.path.join(args["model_repository"], args["model_version"], "model.onnx")
        self.session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
        config = json.loads(args["model_config"])
        self.inputs, self.outputs = ([port["name"] for port in config[kind]] for kind in ("input", "output"))

    def execute(self, requests):
        with open(os.environ["BATCHES"], "a") as file:
            file.write(f"{len(requests)}\\n")
        answers = []
        for request in requests:
            given = {name: triton.get_input_tensor_by_name(request, name).as_numpy() for name in self.inputs}
            got = self.session.run(self.outputs, given)
            answers.append(triton.InferenceResponse([triton.Tensor(*pair) for pair in zip(self.outputs, got)]))
        return answers
"""
pytestmark = pytest.mark.skipif(not VENV, reason="$OVERNIGHT_TRITON names no environment with Triton")


@contextlib.contextmanager
def triton(repository: Path, folder: Path) -> Iterator[httpx.Client]:
    """A server of that repository, and a client of it."""
    (packages,) = Path(VENV).glob("lib/python3.*/site-packages")
    server, backends, port = packages / "pytriton/tritonserver", folder / "backends", free_port()
    shutil.copytree(server / "backends/python", backends / "python")
    version = packages.parent.name.removeprefix("python")
    shutil.copy2(server / f"python_backend_stubs/{version}/triton_python_backend_stub", backends / "python")
    (backends / "onnxruntime").mkdir()
    (backends / "onnxruntime/model.py").write_text(BACKEND)
    environment = {
        "PATH": f"{Path(VENV) / 'bin'}:{os.environ['PATH']}",
        "LD_LIBRARY_PATH": str(packages / "nvidia_pytriton.libs"),
        "PYTHONPATH": str(packages),
        "BATCHES": str(folder / "batches"),
    }
    command: list[Any] = [
        server / "bin/tritonserver",
        "--model-repository",
        repository,
        "--backend-directory",
        backends,
    ]
    command += [
        "--http-address",
        "127.0.0.1",
        "--http-port",
        str(port),
        "--allow-grpc",
        "false",
        "--allow-metrics",
        "false",
    ]
    with (
        (folder / "log").open("w") as log,
        subprocess.Popen(command, stdout=log, stderr=log, env=environment) as process,
    ):
        try:
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", timeout=SECONDS) as client:
                deadline = time.monotonic() + SECONDS
                while not _is_ready(client):
                    assert process.poll() is None and time.monotonic() < deadline, (folder / "log").read_text()
                    time.sleep(0.2)
                yield client
        finally:
            process.terminate()


def _is_ready(client: httpx.Client) -> bool:
    try:
        return client.get("/v2/health/ready").status_code == 200
    except httpx.TransportError:
        return False


@pytest.mark.parametrize("case", ("times between events", "rows of one length", "a label"))
def test_triton_gives_the_vectors_of_the_model(case: str, tmp_path: Path) -> None:
    body, side, groups = CASES[case]
    (tmp_path / "model").mkdir()
    folder = write_folder(model_of(body, *side, reached=True, **groups), tmp_path / "model")
    (folder / "schema.json").write_text("{}")
    recommender = Recommender(folder, "cpu")
    about = export(recommender, tmp_path / "out")
    dense, sessions = Dense(recommender.model), sessions_of(20, seed=2).most_recent(about.length or 99)
    given = dense_of(sessions, dense, about.length or 11)

    def ask(row: int) -> list[float]:
        inputs = []
        for port, value in zip(about.inputs, given, strict=True):
            one = value[row : row + 1].reshape(1, -1) if value.dim() == 1 else value[row : row + 1]
            inputs.append(
                {"name": port.name, "shape": list(one.shape), "datatype": TYPES[port.dtype], "data": one.tolist()}
            )
        answer = client.post("/v2/models/overnight_test/infer", content=json.dumps({"inputs": inputs}))
        assert answer.status_code == 200, answer.text
        outputs = {output["name"]: output["data"] for output in answer.json()["outputs"]}
        assert set(outputs) == {port.name for port in about.outputs}
        return outputs[about.outputs[0].name]  # type: ignore[no-any-return]

    with triton(tmp_path / "out/triton", tmp_path) as client, ThreadPoolExecutor(20) as pool:
        got = np.array(list(pool.map(ask, range(len(sessions)))))
    if about.outputs[0].name == "query":
        np.testing.assert_allclose(got, query_vectors(recommender, sessions).numpy(), atol=1e-4)
    else:
        wanted = recommender.predict(sessions)[about.outputs[0].name]
        np.testing.assert_allclose(got[:, 0], wanted.numpy(), atol=1e-4)
    batches = [int(line) for line in (tmp_path / "batches").read_text().split()]
    assert sum(batches) == len(sessions) and max(batches) > 1, "requests that wait are one batch"
