// quip_web_thread_enter(stack): make the 64 KiB (WEB_STACK_BYTES) at `stack` the stack of this worker:
// thread-local variables at the bottom, stack frames down from the top. It is in assembly because C code
// may use the stack that is replaced here.
#if defined(__wasm64__)
#define ADDRESS i64
#else
#define ADDRESS i32
#endif
	.globaltype	__stack_pointer, ADDRESS
	.functype	__wasm_init_tls (ADDRESS) -> ()
	.export_name	quip_web_thread_enter, quip_web_thread_enter
	.globl	quip_web_thread_enter
	.type	quip_web_thread_enter, @function
quip_web_thread_enter:
	.functype	quip_web_thread_enter (ADDRESS) -> ()
	local.get	0
	ADDRESS.const	65536
	ADDRESS.add
	global.set	__stack_pointer
	local.get	0
	call	__wasm_init_tls
	end_function
