/**
 * A small assembler for eBPF (RFC 9669), so that the kernel engine's program is written, read and built here: no C
 * compiler, no library, nothing that must be kept in step with its source.
 *
 * One method an instruction, jumps to labels, maps by name; `assemble` puts in the maps' descriptors and returns the bytes
 * that bpf(2) takes. Only the instructions that the engine needs: 64-bit arithmetic, loads and stores of 1, 2, 4 and 8
 * bytes, unsigned and signed comparisons, atomic additions and exchanges, calls of helpers. Nothing is verified but labels and
 * ranges: that is the kernel's part.
 *
 *   one instruction, 8 bytes:  opcode u8 | dst u4, src u4 | offset i16 | immediate i32   (RFC 9669 §3.1)
 */

export type Register = 'r0' | 'r1' | 'r2' | 'r3' | 'r4' | 'r5' | 'r6' | 'r7' | 'r8' | 'r9' | 'r10';
/** A register or a signed 32-bit constant, which 64-bit operations extend by its sign. */
export type Operand = Register | number;
export type Size = 1 | 2 | 4 | 8;
export type Condition = '==' | '!=' | '>' | '>=' | '<' | '<=' | '&' | 's>';

const CLASS_LDX = 0x01;
const CLASS_ST = 0x02;
const CLASS_STX = 0x03;
const CLASS_ALU = 0x04;
const CLASS_JMP = 0x05;
const CLASS_ALU64 = 0x07;
/** The source operand is a register. */
const FROM_REGISTER = 0x08;
const MODE_MEM = 0x60;
const MODE_ATOMIC = 0xc0;
const SIZES: Readonly<Record<Size, number>> = { 4: 0x00, 2: 0x08, 1: 0x10, 8: 0x18 };
const ALU = { add: 0x00, sub: 0x10, or: 0x40, and: 0x50, lsh: 0x60, rsh: 0x70, xor: 0xa0, mov: 0xb0 } as const;
/** XCHG with FETCH, in the immediate of an atomic instruction. */
const EXCHANGE = 0xe1;
const SWAP_TO_BIG_ENDIAN = CLASS_ALU | 0xd0 | FROM_REGISTER;
const JUMPS: Readonly<Record<Condition, number>> = {
  '==': 0x10,
  '>': 0x20,
  '>=': 0x30,
  '&': 0x40,
  '!=': 0x50,
  's>': 0x60,
  '<': 0xa0,
  '<=': 0xb0,
};
const JUMP_ALWAYS = 0x05;
const CALL = 0x85;
const EXIT = 0x95;
const LOAD_64 = 0x18;
/** Source register numbers of LOAD_64 (RFC 9669 §5.4): a map's descriptor, and the address of a place in its value. */
const PSEUDO_MAP_FD = 1;
const PSEUDO_MAP_VALUE = 2;

interface Instruction {
  opcode: number;
  dst: number;
  src: number;
  offset: number;
  immediate: number;
  /** Label that a jump leads to. */
  target?: string;
  /** Map whose descriptor becomes the immediate. */
  map?: string;
}

export class Assembler {
  private readonly code: Instruction[] = [];
  private readonly labels = new Map<string, number>();

  /** Instructions so far; a 64-bit constant counts as two. */
  get length(): number {
    return this.code.length;
  }

  // --- arithmetic, 64 bits -------------------------------------------------------------------------------------------

  mov(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU64, ALU.mov, dst, value);
  }
  /** Moves the low 32 bits and clears the others. */
  mov32(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU, ALU.mov, dst, value);
  }
  add(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU64, ALU.add, dst, value);
  }
  sub(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU64, ALU.sub, dst, value);
  }
  and(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU64, ALU.and, dst, value);
  }
  or(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU64, ALU.or, dst, value);
  }
  xor(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU64, ALU.xor, dst, value);
  }
  lsh(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU64, ALU.lsh, dst, value);
  }
  rsh(dst: Register, value: Operand): this {
    return this.alu(CLASS_ALU64, ALU.rsh, dst, value);
  }
  /** Network order of the low 16 bits to the host's or back; the other bits become 0. */
  be16(dst: Register): this {
    return this.emit(SWAP_TO_BIG_ENDIAN, dst, 0, 0, 16);
  }

  // --- memory --------------------------------------------------------------------------------------------------------

  load(size: Size, dst: Register, base: Register, offset: number): this {
    return this.emit(CLASS_LDX | MODE_MEM | SIZES[size], dst, number(base), offset, 0);
  }
  store(size: Size, base: Register, offset: number, value: Operand): this {
    return typeof value === 'number'
      ? this.emit(CLASS_ST | MODE_MEM | SIZES[size], base, 0, offset, value)
      : this.emit(CLASS_STX | MODE_MEM | SIZES[size], base, number(value), offset, 0);
  }
  /** Adds to 8 bytes of memory that other processors add to as well. */
  atomicAdd(base: Register, offset: number, value: Register): this {
    return this.emit(CLASS_STX | MODE_ATOMIC | SIZES[8], base, number(value), offset, ALU.add);
  }
  /** Stores 4 bytes of `value` and puts there what was before: a full barrier (RFC 9669 §5.3, XCHG). */
  exchange(base: Register, offset: number, value: Register): this {
    return this.emit(CLASS_STX | MODE_ATOMIC | SIZES[4], base, number(value), offset, EXCHANGE);
  }
  /** A constant of more than 32 bits, an integer from 0 to 2^53. */
  constant(dst: Register, value: number): this {
    this.emit(LOAD_64, dst, 0, 0, value | 0);
    return this.emit(0, 'r0', 0, 0, Math.floor(value / 0x100000000) | 0);
  }
  /** The map itself, as the helpers take it. */
  map(dst: Register, name: string): this {
    this.emit(LOAD_64, dst, PSEUDO_MAP_FD, 0, 0);
    this.code[this.code.length - 1].map = name;
    return this.emit(0, 'r0', 0, 0, 0);
  }
  /** The address of byte `offset` in the only value of an array map. */
  mapValue(dst: Register, name: string, offset = 0): this {
    this.emit(LOAD_64, dst, PSEUDO_MAP_VALUE, 0, 0);
    this.code[this.code.length - 1].map = name;
    return this.emit(0, 'r0', 0, 0, offset);
  }

  // --- control -------------------------------------------------------------------------------------------------------

  label(name: string): this {
    if (this.labels.has(name)) throw new RangeError(`label: expected a new name, got "${name}" twice`);
    this.labels.set(name, this.code.length);
    return this;
  }
  jump(target: string): this {
    this.emit(JUMP_ALWAYS, 'r0', 0, 0, 0);
    this.code[this.code.length - 1].target = target;
    return this;
  }
  /** Jumps when `a condition b`; `&`: when they have a bit in common. Unsigned, but for `s>`. */
  when(a: Register, condition: Condition, b: Operand, target: string): this {
    const opcode = CLASS_JMP | JUMPS[condition];
    if (typeof b === 'number') this.emit(opcode, a, 0, 0, b);
    else this.emit(opcode | FROM_REGISTER, a, number(b), 0, 0);
    this.code[this.code.length - 1].target = target;
    return this;
  }
  /** Calls a helper by its number; r1 to r5 are its arguments and lost, r0 its result. */
  call(helper: number): this {
    return this.emit(CALL, 'r0', 0, 0, helper);
  }
  exit(): this {
    return this.emit(EXIT, 'r0', 0, 0, 0);
  }

  /**
   * The program's bytes.
   *
   * @param maps descriptor of every map that the program names
   * @throws RangeError for a label or map that does not exist, and a jump that is too far
   */
  assemble(maps: Readonly<Record<string, number>>): Uint8Array {
    const bytes = new Uint8Array(this.code.length * 8);
    const view = new DataView(bytes.buffer);
    this.code.forEach((one, at) => {
      let { offset, immediate } = one;
      if (one.target !== undefined) {
        const to = this.labels.get(one.target);
        if (to === undefined) throw new RangeError(`jump: expected a label of this program, got "${one.target}"`);
        offset = to - at - 1;
      }
      if (one.map !== undefined) {
        if (maps[one.map] === undefined) throw new RangeError(`map: expected a descriptor for "${one.map}", got none`);
        immediate = maps[one.map];
      }
      if (offset < -0x8000 || offset > 0x7fff)
        throw new RangeError(`offset: expected 16 bits, got ${offset} in instruction ${at}`);
      view.setUint8(at * 8, one.opcode);
      view.setUint8(at * 8 + 1, one.dst | (one.src << 4));
      view.setInt16(at * 8 + 2, offset, true);
      view.setInt32(at * 8 + 4, immediate, true);
    });
    return bytes;
  }

  private alu(kind: number, operation: number, dst: Register, value: Operand): this {
    return typeof value === 'number'
      ? this.emit(kind | operation, dst, 0, 0, value)
      : this.emit(kind | operation | FROM_REGISTER, dst, number(value), 0, 0);
  }

  private emit(opcode: number, dst: Register, src: number, offset: number, immediate: number): this {
    this.code.push({ opcode, dst: number(dst), src, offset, immediate });
    return this;
  }
}

function number(register: Register): number {
  return Number(register.slice(1));
}
