// quip_web_thread_enter(stack): make the 64 KiB at `stack` this thread's: thread-local variables at the
// bottom, the stack down from the top. In assembly, because it must not use the stack it replaces.
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
