/* setjmp.h: cmocka's, which this cmocka.h does without. */
