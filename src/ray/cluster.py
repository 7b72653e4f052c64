"""What Ray's C++ API does not say: which nodes a cluster has and what is free on them. And a cluster of chorus-ray's own.

    VERSION nodes ADDRESS          one line of JSON on stdout, or an error of one line on stderr and status 1
    VERSION start DIRECTORY ...    `ray start` with these arguments until SIGTERM; then DIRECTORY goes

VERSION: of the Ray that chorus-ray was built with. Its library is the one that is installed where it runs.
"""
import json
import shutil
import sys
from importlib import metadata


def check_packages(built):
    for package in ("ray", "ray-cpp"):
        try:
            found = metadata.version(package)
        except metadata.PackageNotFoundError:
            found = None
        if found != built:
            raise RuntimeError(f"chorus-ray is built with Ray {built}, and {sys.executable} has {f'{package} {found}' if found else f'no {package}'}: "
                               f"pip install 'ray[default]=={built}' ray-cpp=={built}")


def nodes(address):
    import ray
    from ray._private.services import canonicalize_bootstrap_address
    from ray._private.state import GlobalState
    from ray._raylet import GcsClient, GcsClientOptions

    found = canonicalize_bootstrap_address(address)
    if not found:
        raise RuntimeError("no cluster runs on this machine")
    metadata = GcsClient(address=found).internal_kv_get(b"CLUSTER_METADATA", b"cluster", timeout=10)
    version = json.loads(metadata)["ray_version"] if metadata else ray.__version__
    if version != ray.__version__:
        raise RuntimeError(f"it runs Ray {version}, and chorus-ray is built with {ray.__version__}: give both the same version (make ray RAY_VERSION={version})")
    state = GlobalState()
    state._initialize_global_state(GcsClientOptions.create(found, None, allow_cluster_id_nil=True, fetch_cluster_id_if_nil=False))
    free = state.available_resources_per_node()
    listed = []
    for node in state.node_table():
        if not node["Alive"]:
            continue
        total, left = node["Resources"], free.get(node["NodeID"], {})
        listed.append({"address": node["NodeManagerAddress"], "head": "node:__internal_head__" in total,
                       "raylet": node["RayletSocketName"], "cpus": total.get("CPU", 0.0), "cpus_free": left.get("CPU", 0.0), "gpus": total.get("GPU", 0.0),
                       "gpus_free": left.get("GPU", 0.0), "memory_bytes": total.get("memory", 0.0)})
    print(json.dumps({"address": found, "nodes": listed}))


# The first with RAY_AUTH_MODE (https://docs.ray.io/en/latest/ray-security/token-auth.html). Ray listens on all interfaces, so
# without it anybody in the network could run code here.
FIRST_WITH_TOKENS = (2, 52)


def start(directory, *arguments):
    import ray

    if tuple(int(part) for part in ray.__version__.split(".")[:2]) < FIRST_WITH_TOKENS:
        raise RuntimeError(f"Ray {ray.__version__} cannot guard a cluster of chorus's own with a token, 2.52 and later can: start one with "
                           "ray start --head and give RAY_ADDRESS")
    from ray.scripts.scripts import cli

    try:
        cli(["start", *arguments], standalone_mode=False)
    finally:
        shutil.rmtree(directory, ignore_errors=True)


try:
    check_packages(sys.argv[1])
    {"nodes": nodes, "start": start}[sys.argv[2]](*sys.argv[3:])
except Exception as error:  # pylint: disable=broad-exception-caught
    print(f"{type(error).__name__}: {error}".splitlines()[0], file=sys.stderr)
    sys.exit(1)
