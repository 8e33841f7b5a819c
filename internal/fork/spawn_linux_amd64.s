#include "textflag.h"

// func spawn(args *cloneArgs, size uintptr, calls *call, n uintptr, failed *verdict) (pid, errno uintptr)
//
// The child runs on the parent's stack, which it must not touch: it has registers
// alone.
TEXT ·spawn(SB), NOSPLIT|NOFRAME, $0-56
	MOVQ	args+0(FP), DI
	MOVQ	size+8(FP), SI
	MOVQ	calls+16(FP), R12
	MOVQ	n+24(FP), R13
	MOVQ	failed+32(FP), BX
	MOVQ	$435, AX // clone3
	SYSCALL
	CMPQ	AX, $0
	JEQ	child
	JLT	refused
	MOVQ	AX, pid+40(FP)
	MOVQ	$0, errno+48(FP)
	RET
refused:
	NEGQ	AX
	MOVQ	$0, pid+40(FP)
	MOVQ	AX, errno+48(FP)
	RET
child:
	MOVQ	0(R12), AX
	MOVQ	8(R12), DI
	MOVQ	16(R12), SI
	MOVQ	24(R12), DX
	MOVQ	32(R12), R10
	MOVQ	40(R12), R8
	SYSCALL
	CMPQ	AX, $-4095
	JCC	failed
	ADDQ	$48, R12
	DECQ	R13
	JNE	child
	MOVQ	$38, 0(BX) // the last was not to return: ENOSYS
	JMP	exit
failed:
	NEGQ	AX
	MOVQ	AX, 0(BX)
	MOVQ	0(R12), AX
	MOVQ	AX, 8(BX)
exit:
	MOVQ	$127, DI
	MOVQ	$60, AX // exit
	SYSCALL
	JMP	exit
