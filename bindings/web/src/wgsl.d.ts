/** A shader, as a text. */
declare module "*.wgsl" {
  const text: string;
  export default text;
}
