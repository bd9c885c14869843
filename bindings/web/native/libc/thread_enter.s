# quip_web_thread_enter(stack): make the 64 KiB at `stack` this thread's: thread-local variables at the
# bottom, the stack down from the top. In assembly, because it must not use the stack it replaces.
	.globaltype	__stack_pointer, i32
	.functype	__wasm_init_tls (i32) -> ()
	.export_name	quip_web_thread_enter, quip_web_thread_enter
	.globl	quip_web_thread_enter
	.type	quip_web_thread_enter, @function
quip_web_thread_enter:
	.functype	quip_web_thread_enter (i32) -> ()
	local.get	0
	i32.const	65536
	i32.add
	global.set	__stack_pointer
	local.get	0
	call	__wasm_init_tls
	end_function
