# The kernels are compiled once per instruction set; cpu.c chooses at run time. Everything else is built for any machine.
if(CMAKE_SYSTEM_PROCESSOR MATCHES "x86_64|AMD64")
  set_source_files_properties(src/cpu/kernels_avx2.c PROPERTIES COMPILE_OPTIONS
                              "-mavx2;-mfma;-mf16c;$<$<CONFIG:Release>:-O3>")
  set_source_files_properties(src/cpu/kernels_avx512.c PROPERTIES COMPILE_OPTIONS
                              "-mavx512f;-mavx512bw;-mavx512vl;-mavx512dq;-mavx2;-mfma;-mf16c;-mprefer-vector-width=512;$<$<CONFIG:Release>:-O3>")
endif()
set_source_files_properties(src/cpu/kernels_generic.c PROPERTIES COMPILE_OPTIONS "$<$<CONFIG:Release>:-O3>")
if(SCA_FUZZ) # no fuzz target computes, and instrumenting their unrolled loops takes clang a quarter of an hour
  set_property(SOURCE src/cpu/kernels_generic.c src/cpu/kernels_avx2.c src/cpu/kernels_avx512.c APPEND PROPERTY
               COMPILE_OPTIONS "-fno-sanitize=all")
endif()
