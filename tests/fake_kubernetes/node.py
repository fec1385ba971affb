"""The controller of jobs, and a node whose containers are processes of this machine."""

from __future__ import annotations

import asyncio
import contextlib
import copy
import os
import signal
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tests.fake_kubernetes.objects import Manifest, Objects, now

KILLED = 137


class Node:
    """Runs jobs.

    Args:
        objects: Of the cluster.
        folder: For volumes and logs of pods.
        image: Folder in every image → what it is here.
        environment: Variables that every image has.
    """

    def __init__(
        self,
        objects: Objects,
        folder: Path,
        image: Mapping[str, Path],
        environment: Mapping[str, str],
    ) -> None:
        self._objects = objects
        self._folder = folder
        self._image = image
        self._environment = environment
        self._containers: dict[str, asyncio.subprocess.Process] = {}
        self._out_of_memory: set[str] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    def run_out_of_memory(self, pod: str) -> None:
        """Do what a kernel does when a container exceeds its limit."""
        self._out_of_memory.add(pod)
        os.killpg(self._containers[pod].pid, signal.SIGKILL)

    def log_of(self, pod: str) -> str:
        """Return what a container wrote, also of a pod that is gone."""
        return (self._folder / pod / "log").read_text(errors="replace")

    async def stop(self) -> None:
        """Kill all containers."""
        for container in self._containers.values():
            if container.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    os.killpg(container.pid, signal.SIGKILL)
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def spawn(self, work: Any) -> None:
        """Do something beside everything else."""
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def run_job(self, job: Manifest) -> None:
        """Run the pod of a job, and say how it ended."""
        template = job["spec"]["template"]
        name = job["metadata"]["name"]
        pod = await self._objects.add(
            "pods",
            job["metadata"]["namespace"],
            {
                "metadata": {
                    "generateName": f"{name}-",
                    "labels": {**template["metadata"]["labels"], "job-name": name},
                    "annotations": template["metadata"].get("annotations", {}),
                },
                "spec": copy.deepcopy(template["spec"]),
                "status": {"phase": "Pending"},
            },
        )
        job["status"] = {"active": 1, "startTime": now()}
        await self._objects.put("jobs", "MODIFIED", job)
        seconds = job["spec"].get("activeDeadlineSeconds")
        running = asyncio.create_task(self._run_pod(pod))
        done, _ = await asyncio.wait({running}, timeout=seconds)
        if not done:
            self.spawn(self.terminate(pod))
            await running
        succeeded = pod["status"]["phase"] == "Succeeded" and bool(done)
        condition = {"type": "Complete" if succeeded else "Failed", "status": "True"}
        if not done:
            condition["reason"] = "DeadlineExceeded"
        elif not succeeded:
            condition["reason"] = "BackoffLimitExceeded"  # the limit is 0
        job["status"] = {
            "startTime": job["status"]["startTime"],
            "succeeded" if succeeded else "failed": 1,
            "conditions": [condition],
        }
        await self._objects.put("jobs", "MODIFIED", job)

    async def delete_after(self, plural: str, found: Manifest, pods: list[Manifest]) -> None:
        """Remove an object once its pods are gone."""
        for pod in pods:
            await self.terminate(pod)
        await self._objects.put(plural, "DELETED", found)

    async def _run_pod(self, pod: Manifest) -> None:
        container = pod["spec"]["containers"][0]
        if container["image"].split("/")[0].endswith(".invalid"):
            await self._wait_for_image(pod)
            return
        folder = self._folder / pod["metadata"]["name"]
        places = {**self._image}
        for mount in container.get("volumeMounts", []):
            places[mount["mountPath"]] = folder / mount["name"]
            places[mount["mountPath"]].mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "log").open("wb") as log:
            process = await asyncio.create_subprocess_exec(
                *[sys.executable, "-m", *container["args"]],
                env={
                    **self._environment,
                    **{
                        name: self._located(value, places)
                        for name, value in self._variables(pod, container).items()
                    },
                },
                cwd=places["/app"],
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
            )
        name = pod["metadata"]["name"]
        self._containers[name] = process
        started = now()
        await self._set_status(pod, "Running", {"running": {"startedAt": started}})
        code = await process.wait()
        with contextlib.suppress(ProcessLookupError):  # no process outlives its container
            os.killpg(process.pid, signal.SIGKILL)
        code = 128 - code if code < 0 else code
        reason = "Completed" if code == 0 else "Error"
        if name in self._out_of_memory:
            code, reason = KILLED, "OOMKilled"
        ended = {
            "exitCode": code,
            "reason": reason,
            "startedAt": started,
            "finishedAt": now(),
        }
        await self._set_status(pod, "Failed" if code else "Succeeded", {"terminated": ended})

    async def _wait_for_image(self, pod: Manifest) -> None:
        """Tell that its image cannot be pulled, until somebody removes the pod."""
        waiting = {"reason": "ErrImagePull", "message": "no such host"}
        await self._set_status(pod, "Pending", {"waiting": waiting})
        key = (pod["metadata"]["namespace"], pod["metadata"]["name"])
        while key in self._objects.stores["pods"].objects:
            await asyncio.sleep(0.05)

    async def _set_status(self, pod: Manifest, phase: str, state: Manifest) -> None:
        of = pod["spec"]["containers"][0]
        container = {
            **{"name": of["name"], "image": of["image"], "imageID": "", "restartCount": 0},
            **{"ready": "running" in state, "state": state},
        }
        pod["status"] = {"phase": phase, "containerStatuses": [container]}
        await self._objects.put("pods", "MODIFIED", pod)

    async def terminate(self, pod: Manifest) -> None:
        """Ask process 1 to end, kill all after the grace period, and remove the pod."""
        name = pod["metadata"]["name"]
        process = self._containers.get(name)
        if process and process.returncode is None:
            process.send_signal(signal.SIGTERM)
            grace = pod["spec"].get("terminationGracePeriodSeconds", 30)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(process.wait(), grace)
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            while pod["status"]["phase"] == "Running":  # until the node has seen it
                await asyncio.sleep(0.05)
        await self._objects.put("pods", "DELETED", pod)

    def _variables(self, pod: Manifest, container: Manifest) -> dict[str, str]:
        found: dict[str, str] = {}
        for each in container.get("env", []):
            if "value" in each:
                found[each["name"]] = each["value"]
                continue
            reference = each["valueFrom"]["secretKeyRef"]
            key = (pod["metadata"]["namespace"], reference["name"])
            secret = self._objects.stores["secrets"].objects.get(key, {}).get("stringData", {})
            if reference["key"] in secret:
                found[each["name"]] = secret[reference["key"]]
            elif not reference.get("optional"):
                raise KeyError(reference)
        return found

    @staticmethod
    def _located(value: str, places: Mapping[str, Path]) -> str:
        for path, place in places.items():
            if value == path or value.startswith(f"{path}/"):
                return f"{place}{value.removeprefix(path)}"
        return value
