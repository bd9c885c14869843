# Android without its NDK: clang and lld, the headers of Debian's musl, which declare the functions of
# a C library as bionic has them, and libraries that only name the functions of bionic
# (bindings/android/native/bionic makes them). With the NDK, use its own toolchain file.
# bindings/android/native/build does both.
#   QUIP_ANDROID_ARCH   aarch64 or x86_64
#   QUIP_ANDROID_LIBS   the folder with the libraries
set(CMAKE_SYSTEM_NAME Linux) # CMake's "Android" looks for an NDK
set(CMAKE_SYSTEM_PROCESSOR ${QUIP_ANDROID_ARCH})
set(CMAKE_TRY_COMPILE_PLATFORM_VARIABLES QUIP_ANDROID_ARCH QUIP_ANDROID_LIBS)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY) # there is no C runtime to link a program with
set(QUIP_ANDROID ON)
set(CMAKE_C_COMPILER clang-19)
set(CMAKE_C_COMPILER_TARGET ${QUIP_ANDROID_ARCH}-linux-android26)
# bionic's errno is *__errno(). Outlined atomics would need functions of libgcc.
set(CMAKE_C_FLAGS_INIT "-nostdlibinc -isystem /usr/include/${QUIP_ANDROID_ARCH}-linux-musl -D__errno_location=__errno")
if(QUIP_ANDROID_ARCH STREQUAL aarch64)
  string(APPEND CMAKE_C_FLAGS_INIT " -mno-outline-atomics")
endif()
set(CMAKE_SHARED_LINKER_FLAGS_INIT "-fuse-ld=lld -nostdlib -L${QUIP_ANDROID_LIBS} -lc")
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
