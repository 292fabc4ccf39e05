export function writeDocuments(): void {}
