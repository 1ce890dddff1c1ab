"""The distribution `purchase-intent`: what a Flink cluster gets as a wheel, and what a development machine installs.

requirements.txt pins every package that these ranges resolve to; `make pins` writes it anew.
"""

from compileall import compile_dir
from pathlib import Path
from py_compile import PycInvalidationMode

from setuptools import find_packages, setup
from setuptools.command.build_py import build_py

# build/ is where the project's tools run and write; setuptools gets a corner of it.
BUILD = Path("build/wheel")
BUILD.mkdir(parents=True, exist_ok=True)

TRACKING = ["mlflow-skinny>=3,<4"]
#: PyTorch, which trains sequence models. Serving them needs nothing of it.
SEQUENCE = ["torch>=2.4,<3"]
#: What `make bench PART=peers` measures beside the job, in an environment of its own.
PEERS = ["bytewax[kafka]>=0.21,<0.22", "quixstreams>=3.20,<4"]


class BuildWithBytecode(build_py):
    """Puts bytecode beside each module, where Python finds it in an archive.

    Flink's Python processes import from the wheel as it is. Without bytecode, each of them compiles every module that
    it imports. Another version of Python goes on with the sources.
    """

    def run(self) -> None:
        super().run()
        root = self.build_lib
        compiled = compile_dir(
            root, quiet=1, legacy=True, stripdir=root, invalidation_mode=PycInvalidationMode.UNCHECKED_HASH
        )
        if not compiled:
            raise SystemExit(f"{root}: a module can't be compiled; the line above says which")


setup(
    name="purchase-intent",
    version="0.1.0",
    description="Purchase-intent scores for every click: Kafka, Flink, XGBoost, Kafka",
    packages=find_packages(
        include=[name for top in ("dashboard", "intent", "jobs", "training", "udfs") for name in (top, f"{top}.*")]
    ),
    package_data={
        "dashboard": ["static/*", "templates/*"],
        "udfs.features": ["*.yaml"],
        "training.reporting": ["*.html", "*.md"],
        "training.experiments": ["*.html"],
        "training.backtesting": ["*.html"],
        "training.inspection": ["*.html"],
    },
    cmdclass={"build_py": BuildWithBytecode},
    entry_points={"console_scripts": ["intent = intent.cli:main"]},
    python_requires="~=3.11.0",
    install_requires=[
        "apache-flink==2.2.1",
        "async-timeout",  # redis of apache-beam needs it before Python 3.11.3: pinned for every 3.11, whichever pins it
        "click>=8.5",  # help of arguments
        "cryptography",  # signatures of bundles
        "fastavro",
        "fsspec",
        "googleapis-common-protos<1.76",  # what grpcio-tools 1.65 and protobuf 5 of apache-beam take
        "grpcio-tools<1.66",  # protoc: schemas of Protobuf topics
        "Jinja2",
        "joblib<1.6",
        "kafka-python>=3,<4",
        "crc32c",  # kafka-python is several times slower without
        "lightgbm",
        "matplotlib",
        "msgspec",
        "numba",
        "numpy<2.2",  # apache-beam 2.61, which apache-flink 2.2 pins
        "onnx<1.19",
        "onnxmltools",
        "onnxruntime",
        "optuna",
        "pandas",
        "protobuf",
        "psutil",
        "pyarrow<17",  # apache-beam 2.61
        "PyYAML",
        "rich",
        "scikit-learn",
        "scipy",
        "starlette",
        "threadpoolctl",
        "urllib3",
        "uvicorn",
        "xgboost-cpu==3.2.0",
    ],
    extras_require={
        "tracking": TRACKING,
        "peers": PEERS,
        "sequence": SEQUENCE,
        "dev": [
            *TRACKING,
            "build",
            "httpx2",  # Starlette's client for tests
            "hypothesis",
            "import-linter",
            "pytest",
            "pytest-xdist",
            "ruff",
            "selenium",
            "setuptools>=70.1",
        ],
    },
    options={"build": {"build_base": str(BUILD)}, "egg_info": {"egg_base": str(BUILD)}},
)
