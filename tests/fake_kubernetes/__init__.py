"""A fake of Kubernetes: enough of its API for Prefect's worker, and pods that are processes here.

It is no cluster. Manifests are checked by Kubernetes' own schemas, and who asks by the rules of a Role;
nothing else is enforced: no image is pulled (of registries below ``.invalid`` none can be), no root file system is read-only, no network policy holds, no
quota or admission is asked. A path that the pod mounts, or that the image has, is a folder here; variables
that name it are rewritten.
"""

from tests.fake_kubernetes.api import LOCALHOST, FakeKubernetes

__all__ = ["LOCALHOST", "FakeKubernetes"]
