/* setjmp.h: empty. The cmocka.h of this folder does not need it. */
