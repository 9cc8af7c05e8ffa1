"""Names what pyproject.toml cannot: the mapped package bpf/, and every .pyx as a compiled module."""

import os
from pathlib import Path

from Cython.Build import cythonize
from setuptools import Extension, find_packages, setup

cpus = os.cpu_count() or 1

extensions = [
    Extension(
        ".".join(source.with_suffix("").parts),
        [str(source)],
        # The headers that the kernel's programs are made of, and those that capture files need besides.
        include_dirs=["bpf", "tcptrace/sources/capture_file"],
        depends=sorted(map(str, [*Path("bpf").glob("*.h"), *Path("tcptrace").rglob("*.h")])),
        extra_compile_args=["-O3"],
    )
    for source in sorted(Path("tcptrace").rglob("*.pyx"))
]

setup(
    packages=[*find_packages(include=["tcptrace", "tcptrace.*"]), "tcptrace.bpf"],
    package_dir={"tcptrace.bpf": "bpf"},
    ext_modules=cythonize(
        extensions,
        build_dir="build/cython",
        nthreads=cpus,
        compiler_directives={"language_level": 3, "boundscheck": False, "wraparound": False, "cdivision": True},
    ),
    options={"build_ext": {"parallel": cpus}},
)
