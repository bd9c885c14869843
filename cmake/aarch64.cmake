# 64-bit ARM Linux on a machine of another kind: Debian's cross compiler, its arm64 libraries beside
# the machine's own, and qemu-user to run the programs. The environment variable QEMU_CPU selects the
# processor: max, cortex-a76 (dotprod), cortex-a53 (neon).
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
set(CMAKE_C_COMPILER aarch64-linux-gnu-gcc)
set(CMAKE_CROSSCOMPILING_EMULATOR qemu-aarch64)
set(CMAKE_FIND_ROOT_PATH /usr/aarch64-linux-gnu /usr/lib/aarch64-linux-gnu)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
