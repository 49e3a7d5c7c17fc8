#!/bin/sh
# Install llama-cpp-python for any processor into the environment of a Python interpreter:
#
#     sh envs/install_llama_cpp.sh .venv/bin/python
#
# By default llama.cpp is built for the processor at hand, and dies with SIGILL on others. Here it is built for x86-64
# with AVX2, FMA and F16C (Intel since 2013, AMD since 2015), or for 64-bit Arm. Building takes minutes, so wheels are
# kept in the user's cache, in a folder whose name is a checksum of all that they depend on. pip's cache is not used: it
# does not tell builds for one processor from builds for any.
set -eu
requirements=$(dirname "$0")/../requirements-llama.txt
python=${1:-python}
depends_on() {
    cat "$requirements" "$0"
    uname -sm
    getconf GNU_LIBC_VERSION || true
    echo "${CC-} ${CXX-} ${CFLAGS-} ${CXXFLAGS-} ${LDFLAGS-}"
}
wheels=${XDG_CACHE_HOME:-$HOME/.cache}/espalier/wheels/$(depends_on 2> /dev/null | cksum | cut -d ' ' -f 1)
if [ ! -d "$wheels" ]; then
    mkdir -p "$(dirname "$wheels")"
    new=$(mktemp -d "$wheels.XXXXXX")
    trap 'rm -rf "$new"' EXIT
    # llama.cpp's `common` takes half of the time and nothing here uses it. llama-cpp-python switches it on in CMake's
    # cache; a variable that is set before wins.
    echo 'set(LLAMA_BUILD_COMMON OFF)' > "$new/include.cmake"
    CMAKE_ARGS="-DGGML_NATIVE=OFF -DLLAVA_BUILD=OFF -DCMAKE_PROJECT_llama_cpp_INCLUDE=$new/include.cmake" \
        "$python" -m pip wheel --quiet --no-cache-dir --no-deps --wheel-dir "$new" --requirement "$requirements"
    [ -d "$wheels" ] || mv "$new" "$wheels"
fi
"$python" -m pip install --quiet --no-index --no-deps --force-reinstall "$wheels"/*.whl
