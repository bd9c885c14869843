# Makes one C file of text files: cmake -DOUT=out.c "-DFILES=a.wgsl;b.wgsl" -P embed.cmake
# The text of a.wgsl becomes `const char qp_wgsl_a[]`, which ends with a NUL.
set(c "/* Made by cmake/embed.cmake. */\n")
foreach(file ${FILES})
  get_filename_component(name ${file} NAME_WE)
  file(READ ${file} hex HEX)
  string(REGEX REPLACE "([0-9a-f][0-9a-f])" "0x\\1," bytes "${hex}")
  string(APPEND c "extern const char qp_wgsl_${name}[];\nconst char qp_wgsl_${name}[] = { ${bytes}0 };\n")
endforeach()
file(WRITE ${OUT} "${c}")
